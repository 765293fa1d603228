-- Which species is a penguin of? Numbers, categories and missing values become features, and the species is the class.
CREATE TABLE penguins AS
SELECT *, row_number() OVER () % 3 = 0 AS held_out FROM read_csv('examples/data/penguins.csv', nullstr = 'NA');

-- FEATURES standardizes the numbers, fills what is missing, and makes categories one-hot; what it learns to do so stays
-- with the model, so that PREDICT does the same.
CREATE MODEL penguin INPUT FROM (SELECT * EXCLUDE (held_out) FROM penguins) TARGET (species VARCHAR)
AS SELECT LINEAR(FEATURES(* EXCLUDE (species, year)), CLASSES(species)) AS logits,
          SOFTMAX(logits) AS probability,
          LABEL(logits, species) AS prediction
MINIMIZE AVG(CROSS_ENTROPY(logits, species));

TRAIN penguin ON (SELECT * FROM penguins WHERE NOT held_out)
WITH ADAM (learning_rate = 0.05, epochs = 20, seed = 1);

DESCRIBE penguin;

EVALUATE penguin ON (SELECT * FROM penguins WHERE held_out);

-- A penguin of which hardly anything is known, on an island that no training row is from:
SELECT PREDICT(penguin, island => 'Deception', bill_length_mm => 49, bill_depth_mm => NULL, flipper_length_mm => 195,
               body_mass_g => NULL, sex => NULL, year => 2009) AS species;

SELECT species, prediction, count(*) AS penguins
FROM PREDICT(penguin, (SELECT * FROM penguins WHERE held_out))
GROUP BY ALL ORDER BY ALL;
