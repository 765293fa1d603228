-- Linear regression: the body mass of penguins from three measurements, by gradient descent.
CREATE TABLE penguins AS
SELECT (bill_length_mm - 43.9) / 5.5 AS bill_length, (bill_depth_mm - 17.2) / 2.0 AS bill_depth,
       (flipper_length_mm - 200.9) / 14.1 AS flipper_length, body_mass_g / 1000 AS kilograms
FROM read_csv('examples/data/penguins.csv', nullstr = 'NA')
WHERE body_mass_g IS NOT NULL;

CREATE MODEL mass INPUT (bill_length FLOAT, bill_depth FLOAT, flipper_length FLOAT) TARGET (kilograms FLOAT)
AS SELECT LINEAR([bill_length, bill_depth, flipper_length], 1) AS prediction
MINIMIZE AVG((prediction - kilograms) ** 2);

TRAIN mass ON penguins WITH GD (learning_rate = 0.2, momentum = 0.5, epochs = 500);

EVALUATE mass ON penguins;

-- DuckDB's own least squares on one of the columns, beside the model's prediction:
SELECT count(*) AS penguins,
       round(sqrt(avg((PREDICT(mass) - kilograms) ** 2)), 3) AS rmse,
       round(sqrt(avg((regr.intercept + regr.slope * flipper_length - kilograms) ** 2)), 3) AS rmse_of_flipper_alone
FROM penguins, (SELECT regr_intercept(kilograms, flipper_length) AS intercept,
                       regr_slope(kilograms, flipper_length) AS slope FROM penguins) AS regr;
