// Command jobwire shows users the progress of their jobs: frontends connect
// with socket.io-client, workers POST events, every tab of a user shows them.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"jobwire/config"
	"jobwire/internal/auth"
	"jobwire/internal/logs"
	"jobwire/server"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program: 0 when it did what was asked, 1 when it could not, 2 when it was asked wrongly.
func run(args, env []string, stdout, stderr io.Writer) int {
	cmd, err := config.Load(args, env, readFile)
	var help *config.HelpRequest
	switch {
	case errors.As(err, &help):
		fmt.Fprint(stdout, help.Text)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "jobwire: mistakes in the configuration:\n  %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return 2
	}
	switch cmd.Name {
	case config.Version:
		fmt.Fprintln(stdout, "jobwire", version)
	case config.ConfigCheck:
		fmt.Fprint(stdout, cmd.Dump())
	case config.Token:
		err = printToken(cmd, stdout)
	case config.Emit:
		err = emit(cmd, stdout)
	default:
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "GOGC=") }) {
			server.KeepHeap(server.HeapFloor)
		}
		err = serve(cmd.Settings, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "jobwire:", err)
		return 1
	}
	return 0
}

// readFile is os.ReadFile, with "-" for the standard input.
func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

func serve(settings config.Settings, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log, closeLog := newLogger(settings, stderr)
	defer closeLog()
	signal.Ignore(syscall.SIGPIPE) // a reader of the log that has gone costs its lines, see package logs
	defer ignoreHangups(log)()
	node, err := server.New(settings, version, log)
	if err != nil {
		return err
	}
	// Heartbeats find dead sockets and timeouts idle requests; probes of TCP's own would be four system calls a connection.
	listen := net.ListenConfig{KeepAlive: -1}
	listener, err := listen.Listen(ctx, "tcp", settings.Addr)
	if err != nil {
		return errors.Join(err, node.Close())
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	log.Info("listening", "addr", listener.Addr().String(), "version", version)
	if settings.Dev {
		printHints(stdout, settings, listener.Addr())
	}
	return node.Serve(ctx, listener)
}

// printHints prints what --dev is tried out with: where to look, and how to send.
func printHints(w io.Writer, settings config.Settings, addr net.Addr) {
	url := "http://" + addr.String()
	if settings.Demo {
		fmt.Fprintf(w, "Demo:   %s/demo/\n", url)
	}
	fmt.Fprintf(w, "Worker: curl %s/v1/events -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' "+
		`-d '{"userId":"alice","event":"job_progress","data":{"jobId":"job-1","progress":42}}'`+"\n", url, settings.APIKeys[0].Secret)
}

// newLogger returns the log and what ends it, which may take a second when nobody reads it.
func newLogger(settings config.Settings, w io.Writer) (log *slog.Logger, end func()) {
	queue := logs.New(w, logs.QueueBytes, func(lines uint64) { log.Warn("log lines were dropped: nobody took them", "count", lines) })
	options := &slog.HandlerOptions{Level: settings.LogLevel}
	if settings.LogFormat == "json" {
		log = slog.New(slog.NewJSONHandler(queue, options))
	} else {
		log = slog.New(slog.NewTextHandler(queue, options))
	}
	return log, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = queue.Close(ctx)
	}
}

// ignoreHangups keeps SIGHUP from ending the process without a drain, until the function that it returns is called.
func ignoreHangups(log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			log.Warn("SIGHUP is ignored: settings are read at the start only")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}

func printToken(cmd *config.Command, stdout io.Writer) error {
	token, err := auth.Mint(cmd.Settings.Minting(), cmd.Args.User, cmd.Args.Tenant, cmd.Args.TTL, nil)
	if err == nil {
		fmt.Fprintln(stdout, token)
	}
	return err
}

// emit sends one event as a worker does, and prints the answer.
func emit(cmd *config.Command, stdout io.Writer) error {
	envelope, err := json.Marshal(map[string]string{"userId": cmd.Args.User, "event": cmd.Args.Event})
	if err != nil {
		return err
	}
	// The data goes out as it was written; an encoder would reformat it.
	body := append(envelope[:len(envelope)-1], `,"data":`+cmd.Args.Data+`}`...)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, cmd.Args.URL+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(cmd.Args.APIKey))
	request.Header.Set("Content-Type", "application/json")
	if cmd.Args.IdempotencyKey != "" {
		request.Header.Set("Idempotency-Key", cmd.Args.IdempotencyKey)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(answer))
	}
	fmt.Fprintf(stdout, "%s\n", bytes.TrimSpace(answer))
	return nil
}
