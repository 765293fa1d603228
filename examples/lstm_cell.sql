-- An LSTM cell written out in the language: one step of a recurrent network that learns to add.
-- Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997.
CREATE TABLE steps AS
SELECT [sin(i), cos(i)]::FLOAT[2] AS x, [sin(i * 0.7), cos(i * 0.3), sin(i * 0.2)]::FLOAT[3] AS h,
       [cos(i * 0.5), sin(i * 0.9), cos(i * 0.1)]::FLOAT[3] AS c, (sin(i) + cos(i * 0.1))::FLOAT AS total
FROM range(200) AS r(i);

CREATE MODEL cell
PARAMETERS (w_x FLOAT[12][2], w_h FLOAT[12][3], b FLOAT[12] INIT ZEROS)
INPUT (x FLOAT[2], h FLOAT[3], c FLOAT[3]) TARGET (total FLOAT)
AS SELECT MATMUL(x, w_x) + h @ w_h + b AS gates,
          SIGMOID(gates[1:3]) AS input_gate,
          SIGMOID(gates[4:6]) AS forget_gate,
          TANH(gates[7:9]) AS candidate,
          SIGMOID(gates[10:12]) AS output_gate,
          forget_gate * c + input_gate * candidate AS c_next,
          output_gate * TANH(c_next) AS h_next,
          LINEAR(h_next, 1) AS prediction
MINIMIZE AVG((prediction - total) ** 2);

TRAIN cell ON steps WITH ADAM (learning_rate = 0.02, batch_size = 50, epochs = 100, seed = 7);

SELECT round(avg((PREDICT(cell) - total) ** 2), 3) AS squared_error, round(var_pop(total), 3) AS variance FROM steps;
