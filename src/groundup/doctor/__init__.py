"""MACHINE -> DIAGNOSIS: hardware rates and numerical checks against float64 references."""
