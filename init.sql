-- Reference data and demo users. Running this again changes nothing that is there.

INSERT INTO "Symbol" (symbol, name, market, currency, "tickSize", "lotSize") VALUES
    ('AAPL', 'Apple Inc.', 'NASDAQ', 'USD', 0.01, 1),
    ('GOOGL', 'Alphabet Inc.', 'NASDAQ', 'USD', 0.01, 1),
    ('TSLA', 'Tesla Inc.', 'NASDAQ', 'USD', 0.01, 1),
    ('AMZN', 'Amazon.com Inc.', 'NASDAQ', 'USD', 0.01, 1),
    ('MSFT', 'Microsoft Corp.', 'NASDAQ', 'USD', 0.01, 1),
    ('BTCUSD', 'Bitcoin/USD', 'CRYPTO', 'USD', 0.01, 0.00001),
    ('ETHUSD', 'Ethereum/USD', 'CRYPTO', 'USD', 0.01, 0.0001),
    ('EURUSD', 'Euro/US Dollar', 'FOREX', 'USD', 0.00001, 1),
    ('USDJPY', 'US Dollar/Japanese Yen', 'FOREX', 'JPY', 0.001, 1),
    ('XAUUSD', 'Gold/USD', 'COMMODITY', 'USD', 0.01, 1)
ON CONFLICT (symbol) DO NOTHING;

-- demo users: everybody knows their passwords, which are their e-mail addresses (`forkast init` leaves them out
-- unless it is asked for them). The hashes are bcrypt's, with the cost the predecessor's database used.
INSERT INTO "User" (email, name, password) VALUES
    ('alice@example.com', 'Alice Johnson', '$2b$06$7JkwK.A5sF84utGPQgKNue6v6mdkmqBPS6CMonzQK5CdgVboZyiBO'),
    ('bob@example.com', 'Bob Smith', '$2b$06$gelywlk/QzwtJUBNwoCaiuxsWsEnofa1./Ut6KgaMyN5XusBW2o3a'),
    ('carol@example.com', 'Carol White', '$2b$06$u.YlvMmvR/S4sd2UZgvyVOqRhZQQ0NxwLwutBVLuit9aiFyeKntXO'),
    ('david@example.com', 'David Brown', '$2b$06$W/ysGTHn8rJWvJ45m2MSn./96vDYU1XuuxEAqfCQggENRe15W9VRG'),
    ('eve@example.com', 'Eve Davis', '$2b$06$j0x5y/91AVK4JD00GUUbEuRfrjtl3M5G24jDRGtw0WDY4r01xAAs.'),
    ('frank@example.com', 'Frank Wilson', '$2b$06$5gHVRfg49U/C3YidOu762.Tm5EIW0VrgCZe38/qjrCE.zsVEVhJva'),
    ('grace@example.com', 'Grace Lee', '$2b$06$eDGwSul/XLrUnvKd2MzZSe.sklVoU8WvHcUhJnqPSZwRpPVoysSxm'),
    ('hank@example.com', 'Hank Taylor', '$2b$06$5PFzMAClZB68JjD6YZM5mu/foyqAB1GoGI/gVjtTgiHE.iZBhCbgm'),
    ('irene@example.com', 'Irene Anderson', '$2b$06$E1B1zgYG7mKXE5T2qpzhSO0WrAcvGjQLEZkSZaxgl.FBVAXK91/dO'),
    ('jack@example.com', 'Jack Thomas', '$2b$06$ZGPi8rUuNa.Tf/HzBJiP5.W/Dfhk3SPLnwhYo6R7K/sMIUWS4sMrm')
ON CONFLICT (email) DO NOTHING;
