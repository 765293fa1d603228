-- A heterogeneous graph: which customers stay? That depends on their age and on what they order. Three tables, three
-- kinds of nodes; the model reads them as they are.
CREATE TABLE products AS
SELECT i AS id, (1 + i * 37 % 50)::FLOAT AS price, ['book', 'game', 'tool', 'toy'][1 + i * 7 % 4] AS kind
FROM range(60) AS r(i);

CREATE TABLE orders AS
SELECT i AS id, (i * i * 31 + i * 17) % 997 % 400 AS customer_id, (i * 7919 + i // 60 * 13) % 60 AS product_id,
       1 + i * 31 % 3 AS pieces
FROM range(3000) AS r(i);

-- What decides, and what the model is not told: books keep customers, toys lose them, dear ones more so.
CREATE TABLE customers AS
WITH spent AS (
  SELECT customer_id AS id,
         avg(pieces * price * CASE kind WHEN 'book' THEN 1 WHEN 'game' THEN 0.5 WHEN 'tool' THEN -0.5 ELSE -1 END) AS s
  FROM orders JOIN products ON products.id = product_id GROUP BY ALL)
SELECT i AS id, (18 + i * 53 % 60)::FLOAT AS age, coalesce(s, 0) - (18 + i * 53 % 60 - 47) * 0.5 > 0 AS stays
FROM range(400) AS r(i) LEFT JOIN spent ON spent.id = i ORDER BY i;

CREATE MODEL loyal
INPUT customers (id BIGINT, age FLOAT), orders (customer_id BIGINT, product_id BIGINT, pieces FLOAT),
      products (id BIGINT, price FLOAT, kind VARCHAR)
TARGET customers (stays BOOLEAN)
AS WITH
  product AS (SELECT id, RELU(LINEAR(FEATURES(price, kind), 8)) AS h FROM products),
  basket AS (SELECT o.customer_id AS id, AVG(o.pieces * p.h) AS h
             FROM orders o JOIN product p ON p.id = o.product_id GROUP BY o.customer_id)
SELECT c.id, RELU(LINEAR(FEATURES(c.age), 8) + LINEAR(COALESCE(b.h, 0), 8)) AS hidden,
       LINEAR(hidden, 1) AS score, SIGMOID(score) AS prediction
FROM customers c LEFT JOIN basket b ON b.id = c.id
MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, stays));

-- Every fourth customer is kept aside:
TRAIN loyal ON (SELECT id, age, CASE WHEN id % 4 <> 0 THEN stays END AS stays FROM customers) AS customers,
               orders AS orders, products AS products
WITH ADAM (learning_rate = 0.01, batch_size = ALL, epochs = 200, seed = 1);

EVALUATE loyal ON (SELECT id, age, CASE WHEN id % 4 = 0 THEN stays END AS stays FROM customers) AS customers,
                  orders AS orders, products AS products WITH (accuracy, auc);

-- A model of age alone tells 62 of these 100. Customers who never ordered have an empty basket, which is 0:
SELECT id, age, stays, round(prediction, 1) AS prediction
FROM PREDICT(loyal, customers AS customers, orders AS orders, products AS products) JOIN customers USING (id)
WHERE id NOT IN (SELECT customer_id FROM orders) ORDER BY id LIMIT 3;
