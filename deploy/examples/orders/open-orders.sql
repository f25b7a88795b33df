-- The question of query.json, asked in SQL.
SELECT c.name AS customer, count(*) AS open, sum(o.total) AS value
FROM orders o
         JOIN customers c ON c.id = o.customer_id
WHERE o.status <> 'delivered'
GROUP BY c.name
