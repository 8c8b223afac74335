// Command nvidia-smi-simulated stands in for nvidia-smi in containers that were
// given simulated GPUs. It lists exactly those and says that they are simulated.
package main

func main() {}
