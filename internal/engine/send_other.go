//go:build !unix

package engine

import "errors"

// canSend is false: there is no way to write without waiting here, and all output goes through the queue.
const canSend = false

func send(int32, []byte) (int, error) { return 0, errors.ErrUnsupported }
