script of the base
