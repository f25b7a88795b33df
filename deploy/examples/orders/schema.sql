-- A shop: customers place orders, each line of which is of a product. The total of an order is kept up to date by the application.
CREATE TABLE IF NOT EXISTS customers (
    id   int PRIMARY KEY,
    name text NOT NULL
);
CREATE TABLE IF NOT EXISTS orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers,
    status      text NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'paid', 'shipped', 'delivered')),
    total       numeric(12, 2) NOT NULL DEFAULT 0,
    placed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS products (
    name text PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS order_lines (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line     int NOT NULL,
    product  text NOT NULL REFERENCES products,
    quantity int NOT NULL CHECK (quantity > 0),
    price    numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
INSERT INTO customers
SELECT row_number() OVER (), name
FROM unnest(ARRAY ['Ada', 'Barbara', 'Claude', 'Donald', 'Edsger', 'Frances', 'Grace', 'Hedy', 'Ida', 'John', 'Katherine', 'Leslie']) AS name
ON CONFLICT DO NOTHING;
INSERT INTO products VALUES ('lamp'), ('desk'), ('chair'), ('shelf'), ('clock'), ('kettle'), ('carpet'), ('mirror')
ON CONFLICT DO NOTHING;
