package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// headers are repeated options, `Name: value`.
type headers []string

func (h *headers) String() string         { return strings.Join(*h, ", ") }
func (h *headers) Set(value string) error { *h = append(*h, value); return nil }

// told is what a run has found, in seconds. Times are of answers with the status 200 alone.
type told struct {
	Answers   int            `json:"answers"`
	Failed    map[string]int `json:"failed"`
	PerSecond float64        `json:"per_second"`
	Whole     spread         `json:"whole"`      // until the end of the answer
	FirstByte spread         `json:"first_byte"` // until the first byte of the answer
	FirstText spread         `json:"first_text"` // until the first text of a stream
	Lag       spread         `json:"lag"`        // of a token, from the model to the caller
	Tokens    float64        `json:"tokens_per_second"`
}

type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	N   int     `json:"n"`
}

func of(times []time.Duration) spread {
	if len(times) == 0 {
		return spread{}
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		return times[max(0, int(math.Ceil(share*float64(len(times))))-1)].Seconds()
	}
	return spread{P50: at(0.5), P99: at(0.99), Max: at(1), N: len(times)}
}

func call(arguments []string) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	to := flags.String("url", "", "what is asked")
	connections := flags.Int("connections", 1, "callers, each with a connection of its own")
	seconds := flags.Float64("seconds", 5, "how long is measured")
	warm := flags.Float64("warm", 1, "how long is called before")
	body := flags.String("body", "", "a file")
	var more headers
	flags.Var(&more, "header", "`Name: value`, any number of times")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	where, err := url.Parse(*to)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(*body)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, line := range more {
		lines.WriteString(line + "\r\n")
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		where.RequestURI(), where.Host, lines.String(), len(text), text)
	begin := time.Now().Add(time.Duration(*warm * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	callers := make([]caller, *connections)
	var running sync.WaitGroup
	var unseen atomic.Int64
	unseen.Store(int64(*connections))
	for i := range callers {
		callers[i] = caller{address: where.Host, request: request, begin: begin, end: end, unseen: &unseen, failed: map[string]int{}}
		running.Go(callers[i].run)
	}
	running.Wait()
	return json.NewEncoder(os.Stdout).Encode(sum(callers, time.Duration(*seconds*float64(time.Second))))
}

func sum(callers []caller, lasted time.Duration) told {
	result := told{Failed: map[string]int{}}
	ended, tokens := 0, 0
	var whole, first, text, lag []time.Duration
	for i := range callers {
		c := &callers[i]
		whole, first = append(whole, c.whole...), append(first, c.first...)
		text, lag = append(text, c.text...), append(lag, c.lag...)
		ended, tokens = ended+c.ended, tokens+c.tokens
		for what, count := range c.failed {
			result.Failed[what] += count
		}
	}
	result.Answers, result.PerSecond = len(whole), float64(ended)/lasted.Seconds()
	result.Tokens = float64(tokens) / lasted.Seconds()
	result.Whole, result.FirstByte, result.FirstText, result.Lag = of(whole), of(first), of(text), of(lag)
	return result
}

// How long after the end of a run callers go on, so that each has something to say.
const patience = 30 * time.Second

type caller struct {
	address    string
	request    []byte
	begin, end time.Time
	unseen     *atomic.Int64 // callers of whom no request that was begun while it was measured has been answered
	seen       bool
	failed     map[string]int

	connection net.Conn
	in         *bufio.Reader
	piece      []byte

	// Of requests that were begun while it was measured; and what ended in that time, whenever it began.
	whole, first, text, lag []time.Duration
	ended, tokens           int
}

// within tells whether it is measured now.
func (c *caller) within(now time.Time) bool { return now.After(c.begin) && now.Before(c.end) }

func (c *caller) run() {
	c.piece = make([]byte, 0, 64<<10)
	// Who is answered slowly is waited for, by all: the load stays what it is until every caller has something to say.
	for now := time.Now(); now.Before(c.end) || (c.unseen.Load() > 0 && now.Before(c.end.Add(patience))); now = time.Now() {
		if err := c.ask(); err != nil {
			if c.connection != nil {
				c.connection.Close()
				c.connection = nil
			}
			if time.Now().After(c.begin) {
				c.failed[fmt.Sprintf("%T", err)]++
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if c.connection != nil {
		c.connection.Close()
	}
}

func (c *caller) ask() error {
	if c.connection == nil {
		connection, err := net.DialTimeout("tcp", c.address, 5*time.Second)
		if err != nil {
			return err
		}
		noDelay(connection)
		c.connection, c.in = connection, bufio.NewReaderSize(connection, 64<<10)
	}
	_ = c.connection.SetDeadline(c.end.Add(3 * patience)) // of one that was begun last
	started := time.Now()
	if _, err := c.connection.Write(c.request); err != nil {
		return err
	}
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	first := time.Since(started)
	answer, err := readHead(c.in)
	if err != nil {
		return err
	}
	measured := started.After(c.begin)
	ok := strings.HasPrefix(answer.start, "HTTP/1.1 200")
	text, err := c.read(answer, started, measured && ok)
	if err != nil {
		return err
	}
	if answer.closes {
		c.connection.Close()
		c.connection = nil
	}
	if ok && c.within(time.Now()) {
		c.ended++
	}
	if !measured {
		return nil
	}
	if !c.seen {
		c.seen = true
		c.unseen.Add(-1)
	}
	if !ok {
		c.failed[answer.start]++
		return nil
	}
	c.whole, c.first = append(c.whole, time.Since(started)), append(c.first, first)
	if text > 0 {
		c.text = append(c.text, text)
	}
	return nil
}

// read takes the whole body; of a stream it gives the time until its first text.
func (c *caller) read(answer head, started time.Time, measured bool) (time.Duration, error) {
	if !answer.chunked {
		if answer.length < 0 {
			return 0, fmt.Errorf("no length: %s", answer.start)
		}
		if answer.length > cap(c.piece) {
			c.piece = make([]byte, 0, answer.length)
		}
		_, err := io.ReadFull(c.in, c.piece[:answer.length])
		return 0, err
	}
	var text time.Duration
	for {
		chunk, err := readChunk(c.in, c.piece)
		if err != nil || len(chunk) == 0 {
			return text, err
		}
		now := time.Now()
		for left, rest, ok := sent(chunk); ok; left, rest, ok = sent(rest) {
			if text == 0 {
				text = now.Sub(started)
			}
			if c.within(now) {
				c.tokens++
			}
			if measured {
				c.lag = append(c.lag, now.Sub(left))
			}
		}
	}
}

// sent tells when the first token in these events left the model, and what comes after it; not ok where there is none.
func sent(events []byte) (left time.Time, rest []byte, ok bool) {
	for {
		at := bytes.Index(events, []byte(`"content":"`))
		if at < 0 {
			return time.Time{}, nil, false
		}
		events = events[at+len(`"content":"`):]
		text, _, _ := bytes.Cut(events, []byte(` "`))
		if nanoseconds, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return time.Unix(0, nanoseconds), events, true
		}
	}
}
