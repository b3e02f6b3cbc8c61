// Command httpload is both ends of the gateway's bench: a model that answers
// at once (`httpload model`), and callers that wait for nothing but answers
// (`httpload call`). It speaks as much HTTP/1.1 as the two need, so that
// what is measured is the gateway between them.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "model":
		err = model(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "call":
		err = call(os.Args[2:])
	default:
		err = errors.New("usage: httpload model|call [options]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "httpload:", err)
		os.Exit(1)
	}
}

// head is the start line and the headers that decide on framing.
type head struct {
	start   string
	length  int // -1: not said
	chunked bool
	closes  bool
}

func readHead(in *bufio.Reader) (head, error) {
	found := head{length: -1}
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return found, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			found.start = string(line)
			continue
		}
		if len(line) == 0 {
			return found, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch len(name) {
		case len("content-length"):
			if strings.EqualFold(string(name), "content-length") {
				if found.length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
					return found, err
				}
			}
		case len("transfer-encoding"):
			if strings.EqualFold(string(name), "transfer-encoding") {
				found.chunked = true
			}
		case len("connection"):
			if strings.EqualFold(string(name), "connection") && strings.EqualFold(string(bytes.TrimSpace(value)), "close") {
				found.closes = true
			}
		}
	}
}

// readChunk reads one chunk into `to`; an empty one is the end of the body.
func readChunk(in *bufio.Reader, to []byte) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
	if err != nil {
		return nil, err
	}
	if int(size) > cap(to) {
		to = make([]byte, size)
	}
	to = to[:size]
	if _, err = io.ReadFull(in, to); err != nil {
		return nil, err
	}
	if _, err = in.Discard(len("\r\n")); err != nil {
		return nil, err
	}
	return to, nil
}

func noDelay(connection net.Conn) {
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
}
