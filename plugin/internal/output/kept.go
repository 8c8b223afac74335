package output

import "io"

// Kept is a writer that keeps its first error: not everything that prints tells
// whether it could.
type Kept struct {
	io.Writer
	Err error
}

func (k *Kept) Write(b []byte) (int, error) {
	n, err := k.Writer.Write(b)
	if k.Err == nil {
		k.Err = err
	}
	return n, err
}
