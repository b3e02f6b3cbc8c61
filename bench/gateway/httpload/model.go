package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
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
	stream := newStream(*tokens, *interval)
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
		go (&asked{connection: connection, stream: stream}).serve()
	}
}

type asked struct {
	connection net.Conn
	stream     *stream
	event      []byte
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
			err = a.answer(body, a.stream.interval)
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
		return a.tell(interval)
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

// stream is a streamed answer but for the text of its tokens. Each token is written by itself, as by a model that has no next one yet;
// what does not change from one to the next is made once.
type stream struct {
	tokens     int
	interval   time.Duration
	begin, end []byte // what is written before and after the tokens
	head, tail []byte // of a token's event, around its text
}

func newStream(tokens int, interval time.Duration) *stream {
	chunk := func(delta, finish string) string {
		return `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":` +
			delta + `,"finish_reason":` + finish + "}]}\n\n"
	}
	framed := func(event string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(event), event) }
	s := &stream{tokens: tokens, interval: interval}
	s.begin = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
		framed(chunk(`{"role":"assistant","content":""}`, "null")))
	s.end = []byte(framed(chunk(`{}`, `"stop"`)) + framed("data: [DONE]\n\n") + "0\r\n\r\n")
	text := strconv.FormatInt(time.Now().UnixNano(), 10) // as long as that of each token, which decides on the frame
	head, tail, _ := strings.Cut(framed(chunk(`{"content":"`+text+` "}`, "null")), text)
	s.head, s.tail = []byte(head), []byte(tail)
	return s
}

// tell sends each token with the time at which it left, in nanoseconds, as its text.
func (a *asked) tell(interval time.Duration) error {
	if _, err := a.connection.Write(a.stream.begin); err != nil {
		return err
	}
	for range a.stream.tokens {
		if interval > 0 {
			time.Sleep(interval)
		}
		a.event = append(a.event[:0], a.stream.head...)
		a.event = strconv.AppendInt(a.event, time.Now().UnixNano(), 10)
		a.event = append(a.event, a.stream.tail...)
		if _, err := a.connection.Write(a.event); err != nil {
			return err
		}
	}
	_, err := a.connection.Write(a.stream.end)
	return err
}
