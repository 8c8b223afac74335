package crispec

// NodeResolv is what the machine's resolv.conf says.
type NodeResolv struct {
	Nameservers, Searches, Options []string
}
