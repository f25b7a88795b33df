-- The question of query-urgent.json, asked in SQL.
SELECT o.id, o.total
FROM orders o
WHERE o.status = 'paid' AND o.total >= 400
