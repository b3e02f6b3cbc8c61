package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// What a model says at once: an answer of about 0.8 KB.
var answer = func() []byte {
	text := strings.Repeat("The parcel left on Monday and arrives on Thursday. ", 9)
	body := fmt.Sprintf(`{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":%q},"logprobs":null,"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":42,"completion_tokens":99,"total_tokens":141},"system_fingerprint":"fp_bench"}`, text)
	return whole("200 OK", body)
}()

var refusal = whole("429 Too Many Requests", `{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`)

func whole(status, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// model answers by the first part of the path: `quick` at once, `paced` with a token of a stream each `-interval`,
// `hang` never, `reset` with a broken connection, `busy` with 429.
func model(arguments []string) error {
	flags := flag.NewFlagSet("model", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	tokens := flags.Int("tokens", 50, "of a streamed answer")
	interval := flags.Duration("interval", 2*time.Millisecond, "between paced tokens")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		noDelay(connection)
		go (&asked{connection: connection, tokens: *tokens, interval: *interval}).serve()
	}
}

type asked struct {
	connection net.Conn
	tokens     int
	interval   time.Duration
}

func (a *asked) serve() {
	defer a.connection.Close()
	in := bufio.NewReaderSize(a.connection, 64<<10)
	body := make([]byte, 0, 64<<10)
	for {
		request, err := readHead(in)
		if err != nil {
			return
		}
		if body, err = readBody(in, request, body); err != nil {
			return
		}
		switch way(request.start) {
		case "hang":
			_, _ = in.ReadByte() // until the caller has had enough
			return
		case "reset":
			_ = a.connection.(*net.TCPConn).SetLinger(0)
			return
		case "busy":
			_, err = a.connection.Write(refusal)
		case "paced":
			err = a.answer(body, a.interval)
		default:
			err = a.answer(body, 0)
		}
		if err != nil || request.closes {
			return
		}
	}
}

func (a *asked) answer(body []byte, interval time.Duration) error {
	if bytes.Contains(body, []byte(`"stream":true`)) || bytes.Contains(body, []byte(`"stream": true`)) {
		return a.stream(interval)
	}
	_, err := a.connection.Write(answer)
	return err
}

func readBody(in *bufio.Reader, request head, body []byte) ([]byte, error) {
	body = body[:0]
	if request.chunked {
		piece := make([]byte, 0, 4096)
		for {
			chunk, err := readChunk(in, piece)
			if err != nil || len(chunk) == 0 {
				return body, err
			}
			body = append(body, chunk...)
		}
	}
	size := max(0, request.length)
	if size > cap(body) {
		body = make([]byte, 0, size)
	}
	_, err := io.ReadFull(in, body[:size])
	return body[:size], err
}

// way is the first part of the path.
func way(start string) string {
	_, path, _ := strings.Cut(start, " /")
	first, _, _ := strings.Cut(path, "/")
	return first
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// stream sends each token with the time at which it left, in nanoseconds, as its text.
func (a *asked) stream(interval time.Duration) error {
	send := func(event string) error {
		_, err := fmt.Fprintf(a.connection, "%x\r\n%s\r\n", len(event), event)
		return err
	}
	chunk := func(delta, finish string) string {
		return `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":` +
			delta + `,"finish_reason":` + finish + "}]}\n\n"
	}
	if _, err := io.WriteString(a.connection, streamHead); err != nil {
		return err
	}
	if err := send(chunk(`{"role":"assistant","content":""}`, "null")); err != nil {
		return err
	}
	for range a.tokens {
		time.Sleep(interval)
		if err := send(chunk(fmt.Sprintf(`{"content":"%d "}`, time.Now().UnixNano()), "null")); err != nil {
			return err
		}
	}
	if err := send(chunk(`{}`, `"stop"`)); err != nil {
		return err
	}
	if err := send("data: [DONE]\n\n"); err != nil {
		return err
	}
	_, err := io.WriteString(a.connection, "0\r\n\r\n")
	return err
}
