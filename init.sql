-- Reference data: ten symbols and ten demo users. Running this again changes nothing that is there.

INSERT INTO "Symbol" (id, symbol, name, market, currency, "tickSize", "lotSize")
VALUES
    (1, 'AAPL', 'Apple Inc.', 'NASDAQ', 'USD', 0.01, 1),
    (2, 'GOOGL', 'Alphabet Inc.', 'NASDAQ', 'USD', 0.01, 1),
    (3, 'TSLA', 'Tesla Inc.', 'NASDAQ', 'USD', 0.01, 1),
    (4, 'AMZN', 'Amazon.com Inc.', 'NASDAQ', 'USD', 0.01, 1),
    (5, 'MSFT', 'Microsoft Corp.', 'NASDAQ', 'USD', 0.01, 1),
    (6, 'BTCUSD', 'Bitcoin/USD', 'CRYPTO', 'USD', 0.01, 0.00001),
    (7, 'ETHUSD', 'Ethereum/USD', 'CRYPTO', 'USD', 0.01, 0.0001),
    (8, 'EURUSD', 'Euro/US Dollar', 'FOREX', 'USD', 0.00001, 1),
    (9, 'USDJPY', 'US Dollar/Japanese Yen', 'FOREX', 'JPY', 0.001, 1),
    (10, 'XAUUSD', 'Gold/USD', 'COMMODITY', 'USD', 0.01, 1)
ON CONFLICT DO NOTHING;

SELECT setval('"Symbol_id_seq"', GREATEST((SELECT max(id) FROM "Symbol"), last_value)) FROM "Symbol_id_seq";

-- demo users: `forkast init` leaves out what follows unless it is told `--demo-users`.
-- The password of each is the e-mail address, so these users must never exist on an exchange that others reach.

INSERT INTO "User" (id, email, name, password)
VALUES
    (1, 'alice@example.com', 'Alice Johnson', '$2a$06$c3EYQ.UAinEXW3oK.jYkje.MGm8F5mWcr0KNg6Fyh36WEb1BzilGK'),
    (2, 'bob@example.com', 'Bob Smith', '$2a$06$qkj6Y5imFRB3LWZGip/5Xea1pSGYbdw4mcb5mI.9VnWJ.6CEhhMJC'),
    (3, 'carol@example.com', 'Carol White', '$2a$06$QlUi0e9KHxIIIez3tkVb2uvWQHyzgwZr..2TMXsQFBz.DzUc5pxKm'),
    (4, 'david@example.com', 'David Brown', '$2a$06$kTXZCABl.wLw6JWOMEz/nOpVqgnOkTfxguJL8NXyvCOcEuW/.4lRq'),
    (5, 'eve@example.com', 'Eve Davis', '$2a$06$M/pQzknGN9Ta1PUe6F54HeK/6A5E2XTiN4tLv1PGrWYWCgba9ulw6'),
    (6, 'frank@example.com', 'Frank Wilson', '$2a$06$p/zo0TMKAWEjHTT1we7pD.eYfsazjLEc94LVZMjTN6.7Rex2.NR7a'),
    (7, 'grace@example.com', 'Grace Lee', '$2a$06$sAm0CJAQimv9bWOJ/DSclOVsS50S9xFIQa6vOmVW09.GS9b1Yllra'),
    (8, 'hank@example.com', 'Hank Taylor', '$2a$06$2QrUlCbFULUHh3xA3uDOhO9/HKaBDgFbDEadGRkMCPzJD.IdqoSqy'),
    (9, 'irene@example.com', 'Irene Anderson', '$2a$06$3PObip0DBYPvk7w/jQrK9ODEZiKqSHQsvh.BFtPgHYwhxL.CcT9ba'),
    (10, 'jack@example.com', 'Jack Thomas', '$2a$06$YRhSVFtkVN0/KDmZla5MP.P/FAsyAnthj5dk1lHoBiq4GeOnUeQDq')
ON CONFLICT DO NOTHING;

SELECT setval('"User_id_seq"', GREATEST((SELECT max(id) FROM "User"), last_value)) FROM "User_id_seq";
