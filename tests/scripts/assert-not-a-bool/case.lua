assert(1)
