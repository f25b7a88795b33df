-- The question of query-lines.json, asked in SQL.
SELECT o.id, l.line, p.name AS product, l.quantity * l.price AS value
FROM orders o
         JOIN order_lines l ON l.order_id = o.id
         JOIN products p ON p.name = l.product
WHERE o.status = 'paid' AND l.quantity * l.price >= 300
