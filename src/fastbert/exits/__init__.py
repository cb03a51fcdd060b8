"""The whole idea: who may leave where, and the loop that lets them."""
