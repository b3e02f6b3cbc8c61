"""What operator, gateway and generators share: the kinds, names, reasons and contracts. Imports nothing else of ours, does no I/O."""
