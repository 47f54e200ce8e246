WORD = "from the neighbour"
