# The simulator and its mutants: the same cores, built alone, without any foreign library.
