"""The ground every stage stands on: records, recipes, fingerprints, the store, progress. Imports no torch."""
