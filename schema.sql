-- The exchange's tables. Running this again changes nothing in a database that has them, and brings the tables of an
-- earlier version up to this one; do the latter before the new version's sink starts.
--
-- Tables, enums and columns keep the names of forkast-exchange. The log (`orders.exchange`) is the truth and these
-- tables are its history, written by the sink alone, except for "User", "ApiKey" and "ClientOrderId", which no event
-- describes.

DO $$
BEGIN
    IF to_regtype('"OrderSide"') IS NULL THEN
        CREATE TYPE "OrderSide" AS ENUM ('BUY', 'SELL');
    END IF;
    IF to_regtype('"OrderStatus"') IS NULL THEN
        CREATE TYPE "OrderStatus" AS ENUM
            ('PENDING', 'PARTIALLY_FILLED', 'FILLED', 'CANCELLED', 'REJECTED', 'EXPIRED');
    END IF;
    IF to_regtype('"OrderType"') IS NULL THEN
        CREATE TYPE "OrderType" AS ENUM ('MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT');
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS "User" (
    id serial PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password text NOT NULL, -- bcrypt
    "createdAt" timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);

-- Written by the OMS alone. A revoked key stays, so that what it did can be told from what another did.
CREATE TABLE IF NOT EXISTS "ApiKey" (
    id text PRIMARY KEY,
    "userId" integer NOT NULL REFERENCES "User" (id) ON DELETE CASCADE,
    name text NOT NULL,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'trade']),
    "secretHash" bytea NOT NULL CHECK (octet_length("secretHash") = 32), -- SHA-256 of 256 random bits
    "signingKey" bytea CHECK (octet_length("signingKey") = 32), -- sealed; NULL: signs no requests
    "createdAt" timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    "revokedAt" timestamp(3)
);

-- Written by the OMS alone: which order a user's client order id stands for, for 24 hours.
CREATE TABLE IF NOT EXISTS "ClientOrderId" (
    "userId" integer NOT NULL,
    "clientOrderId" text NOT NULL,
    "orderId" uuid NOT NULL,
    "symbolId" integer NOT NULL,
    digest bytea NOT NULL, -- of the request: another one with the same id is refused
    "createdAt" timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    PRIMARY KEY ("userId", "clientOrderId")
);

CREATE TABLE IF NOT EXISTS "Symbol" (
    id serial PRIMARY KEY,
    symbol text NOT NULL,
    name text NOT NULL,
    market text NOT NULL,
    currency text NOT NULL DEFAULT 'USD',
    "tickSize" numeric NOT NULL DEFAULT 0.01 CHECK ("tickSize" > 0),
    "lotSize" numeric NOT NULL DEFAULT 1 CHECK ("lotSize" > 0),
    status text NOT NULL DEFAULT 'TRADING',
    "createdAt" timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    "updatedAt" timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    -- NULL: no such rule
    "minQuantity" numeric,
    "maxQuantity" numeric,
    "minNotional" numeric, -- of price times quantity
    "priceCollar" numeric, -- how far from the last price a price may be, as a fraction of it
    "maxOpenOrders" integer -- of a user
);

-- No foreign keys to "User" and "Symbol": a Kafka producer may send any userId, and what the log has accepted must
-- not stop the sink. The key has the symbol in it because the exchange keeps order ids apart by partition: an id
-- that is used for symbols of two partitions makes two orders.
-- The free part of each page lets a fill change its row in place, without touching an index.
CREATE TABLE IF NOT EXISTS "Order" (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    "userId" integer NOT NULL,
    "symbolId" integer NOT NULL,
    type "OrderType" NOT NULL,
    price numeric, -- NULL: a market or stop order
    quantity numeric, -- NULL: an order for "quoteQuantity"
    "filledQuantity" numeric NOT NULL DEFAULT 0,
    status "OrderStatus" NOT NULL DEFAULT 'PENDING',
    side "OrderSide" NOT NULL,
    "timeInForce" text NOT NULL DEFAULT 'GTC',
    "clientOrderId" text,
    reason text, -- why it was cancelled or rejected
    sequence bigint NOT NULL, -- the symbol's sequence of the last event applied
    "createdAt" timestamp(3) NOT NULL,
    "updatedAt" timestamp(3) NOT NULL,
    "executedAt" timestamp(3), -- the last fill
    "stopPrice" numeric,
    "expiresAt" timestamp(3),
    "postOnly" boolean NOT NULL DEFAULT false,
    "displayQuantity" numeric, -- the most that is seen of it at a time
    "selfTradePrevention" text NOT NULL DEFAULT 'EXPIRE_TAKER',
    "quoteQuantity" numeric, -- what to spend or to earn, in the currency
    "triggeredAt" timestamp(3), -- of a stop order
    replaces uuid, -- the order that went for this one
    PRIMARY KEY (id, "symbolId"),
    -- A rejected order stands here as it was sent, which may be a quantity below zero.
    CONSTRAINT "Order_quantities_check" CHECK (
        "filledQuantity" >= 0
        AND CASE
            WHEN status = 'REJECTED' THEN "filledQuantity" = 0
            WHEN quantity IS NULL THEN "quoteQuantity" IS NOT NULL
            ELSE "filledQuantity" <= quantity
        END
    )
) WITH (fillfactor = 80);

-- Tables of the first version. Only if a column is missing, as even an ALTER TABLE that finds nothing to do waits for
-- all that is under way and holds up all that comes.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = '"Symbol"'::regclass AND attname = 'maxOpenOrders'
    ) THEN
        ALTER TABLE "Symbol"
            ADD COLUMN IF NOT EXISTS "minQuantity" numeric,
            ADD COLUMN IF NOT EXISTS "maxQuantity" numeric,
            ADD COLUMN IF NOT EXISTS "minNotional" numeric,
            ADD COLUMN IF NOT EXISTS "priceCollar" numeric,
            ADD COLUMN IF NOT EXISTS "maxOpenOrders" integer;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = '"Order"'::regclass AND attname = 'replaces') THEN
        ALTER TABLE "Order"
            ALTER COLUMN quantity DROP NOT NULL,
            ADD COLUMN IF NOT EXISTS "stopPrice" numeric,
            ADD COLUMN IF NOT EXISTS "expiresAt" timestamp(3),
            ADD COLUMN IF NOT EXISTS "postOnly" boolean NOT NULL DEFAULT false,
            ADD COLUMN IF NOT EXISTS "displayQuantity" numeric,
            ADD COLUMN IF NOT EXISTS "selfTradePrevention" text NOT NULL DEFAULT 'EXPIRE_TAKER',
            ADD COLUMN IF NOT EXISTS "quoteQuantity" numeric,
            ADD COLUMN IF NOT EXISTS "triggeredAt" timestamp(3),
            ADD COLUMN IF NOT EXISTS replaces uuid,
            DROP CONSTRAINT IF EXISTS "Order_filledQuantity_check",
            -- Not valid: what is there has passed the stricter check before, and need not be read again.
            ADD CONSTRAINT "Order_quantities_check" CHECK (
                "filledQuantity" >= 0
                AND CASE
                    WHEN status = 'REJECTED' THEN "filledQuantity" = 0
                    WHEN quantity IS NULL THEN "quoteQuantity" IS NOT NULL
                    ELSE "filledQuantity" <= quantity
                END
            ) NOT VALID;
    END IF;
END
$$;

-- No foreign keys to "Order": the sink writes a trade only together with its two orders, or when it has found them,
-- and a key would look each of them up again.
CREATE TABLE IF NOT EXISTS "Trade" (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "symbolId" integer NOT NULL,
    price numeric NOT NULL CHECK (price > 0),
    quantity numeric NOT NULL CHECK (quantity > 0),
    "buyOrderId" uuid NOT NULL,
    "sellOrderId" uuid NOT NULL,
    "timestamp" timestamp(3) NOT NULL,
    "orderId" uuid, -- kept for readers of the former tables; never set
    sequence bigint NOT NULL,
    "takerSide" "OrderSide" NOT NULL
);

-- How far the sink is: it changes in the same statement as the rows, so both are always of the same moment.
CREATE TABLE IF NOT EXISTS "SinkProgress" (
    topic text NOT NULL,
    partition integer NOT NULL,
    "nextOffset" bigint NOT NULL CHECK ("nextOffset" >= 0),
    "lastDigest" text, -- of the record before; NULL: an earlier version of the sink has not told
    PRIMARY KEY (topic, partition)
);

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = '"SinkProgress"'::regclass AND attname = 'lastDigest'
    ) THEN
        ALTER TABLE "SinkProgress" ADD COLUMN IF NOT EXISTS "lastDigest" text;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS "SymbolSequence" (
    "symbolId" integer PRIMARY KEY,
    partition integer NOT NULL,
    sequence bigint NOT NULL -- of the last event applied
);

-- Looked for first: CREATE INDEX IF NOT EXISTS holds up all who write the table, until this transaction ends, before it
-- finds that there is nothing to do.
DO $$
BEGIN
    IF to_regclass('"User_email_key"') IS NULL THEN
        CREATE UNIQUE INDEX "User_email_key" ON "User" (email);
    END IF;
    IF to_regclass('"ApiKey_userId_idx"') IS NULL THEN
        CREATE INDEX "ApiKey_userId_idx" ON "ApiKey" ("userId") WHERE "revokedAt" IS NULL;
    END IF;
    IF to_regclass('"ClientOrderId_createdAt_idx"') IS NULL THEN
        CREATE INDEX "ClientOrderId_createdAt_idx" ON "ClientOrderId" ("createdAt");
    END IF;
    -- Not unique: a SYMBOL command may give a name twice, and what the log says must not stop the sink.
    IF to_regclass('"Symbol_symbol_idx"') IS NULL THEN
        CREATE INDEX "Symbol_symbol_idx" ON "Symbol" (symbol);
    END IF;
    IF to_regclass('"Order_userId_createdAt_idx"') IS NULL THEN
        CREATE INDEX "Order_userId_createdAt_idx" ON "Order" ("userId", "createdAt" DESC, id DESC);
    END IF;
    IF to_regclass('"Order_userId_clientOrderId_idx"') IS NULL THEN
        CREATE INDEX "Order_userId_clientOrderId_idx" ON "Order" ("userId", "clientOrderId")
            WHERE "clientOrderId" IS NOT NULL;
    END IF;
    IF to_regclass('"Trade_symbolId_sequence_key"') IS NULL THEN
        CREATE UNIQUE INDEX "Trade_symbolId_sequence_key" ON "Trade" ("symbolId", sequence);
    END IF;
    IF to_regclass('"Trade_buyOrderId_idx"') IS NULL THEN
        CREATE INDEX "Trade_buyOrderId_idx" ON "Trade" ("buyOrderId");
    END IF;
    IF to_regclass('"Trade_sellOrderId_idx"') IS NULL THEN
        CREATE INDEX "Trade_sellOrderId_idx" ON "Trade" ("sellOrderId");
    END IF;
END
$$;
