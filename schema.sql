-- The predecessor's tables, names and columns, and what this exchange keeps beside them.
-- Running this again on an existing database changes nothing.

DO $$ BEGIN
    CREATE TYPE "OrderSide" AS ENUM ('BUY', 'SELL');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

DO $$ BEGIN
    CREATE TYPE "OrderStatus" AS ENUM
        ('PENDING', 'PARTIALLY_FILLED', 'FILLED', 'CANCELLED', 'REJECTED', 'EXPIRED');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

DO $$ BEGIN
    CREATE TYPE "OrderType" AS ENUM ('MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

CREATE TABLE IF NOT EXISTS "User" (
    id serial PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password text NOT NULL,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE UNIQUE INDEX IF NOT EXISTS "User_email_key" ON "User" (email);

CREATE TABLE IF NOT EXISTS "Symbol" (
    id serial PRIMARY KEY,
    symbol text NOT NULL,
    name text NOT NULL,
    market text NOT NULL,
    currency text NOT NULL DEFAULT 'USD',
    "tickSize" numeric(24, 12) NOT NULL DEFAULT 0.01 CHECK ("tickSize" > 0),
    "lotSize" numeric(24, 12) NOT NULL DEFAULT 1 CHECK ("lotSize" > 0),
    status text NOT NULL DEFAULT 'TRADING',
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE UNIQUE INDEX IF NOT EXISTS "Symbol_symbol_key" ON "Symbol" (symbol);

-- Neither "userId" nor "symbolId" refers to another table: whoever may write to the log may name any user, and a row the
-- log has must never stop the sink. Quantities are numeric, as lots may be fractions.
-- "sequence" is the symbol sequence of the last event applied: an older event never overwrites a newer state.
CREATE TABLE IF NOT EXISTS "Order" (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "userId" integer NOT NULL,
    "symbolId" integer NOT NULL,
    type "OrderType" NOT NULL,
    price numeric(65, 30),
    quantity numeric(36, 12) NOT NULL,
    "filledQuantity" numeric(36, 12) NOT NULL DEFAULT 0,
    status "OrderStatus" NOT NULL DEFAULT 'PENDING',
    side "OrderSide" NOT NULL,
    "timeInForce" text NOT NULL DEFAULT 'GTC',
    "clientOrderId" text,
    reason text,
    sequence bigint NOT NULL DEFAULT 0,
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "executedAt" timestamp(3),
    CONSTRAINT "Order_filled_within_quantity"
        CHECK (status = 'REJECTED' OR ("filledQuantity" BETWEEN 0 AND quantity))
);
CREATE INDEX IF NOT EXISTS "Order_userId_createdAt_idx" ON "Order" ("userId", "createdAt" DESC, id DESC);

CREATE TABLE IF NOT EXISTS "Trade" (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "symbolId" integer NOT NULL,
    price numeric(65, 30) NOT NULL CHECK (price > 0),
    quantity numeric(36, 12) NOT NULL CHECK (quantity > 0),
    "buyOrderId" uuid NOT NULL,
    "sellOrderId" uuid NOT NULL,
    "timestamp" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "orderId" uuid,
    sequence bigint NOT NULL DEFAULT 0,
    "takerSide" "OrderSide"
);
CREATE INDEX IF NOT EXISTS "Trade_buyOrderId_idx" ON "Trade" ("buyOrderId");
CREATE INDEX IF NOT EXISTS "Trade_sellOrderId_idx" ON "Trade" ("sellOrderId");
CREATE UNIQUE INDEX IF NOT EXISTS "Trade_symbolId_sequence_key" ON "Trade" ("symbolId", sequence);

-- How far the sink is: written in the same statement as the rows, so the two can never disagree.
CREATE TABLE IF NOT EXISTS "SinkProgress" (
    topic text NOT NULL,
    partition integer NOT NULL,
    "nextOffset" bigint NOT NULL,
    sequences jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, partition)
);
