"""Registry `datasets`: what alignment learns from, one file per kind; `use` in a `[[data]]` table names one."""
