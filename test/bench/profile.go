package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// profileSeconds is shorter than the measured part of most loads.
const profileSeconds = 3

// takeProfile records where s spends its CPU: with net/http/pprof when the
// server offers it, else with perf.
func (b *bench) takeProfile(ctx context.Context, s *server, name string) error {
	base := filepath.Join(b.results, "profiles", name)
	if s.debugAddr != "" {
		return fetchProfile(ctx, s.debugAddr, base+".pb.gz")
	}
	perf, err := exec.LookPath("perf")
	if err != nil {
		return errors.New("the server has no debug listener and perf is not installed")
	}
	cmd := exec.CommandContext(ctx, perf, "record", "-q", "-g", "-F", "1999", "-o", base+".perf",
		"-p", strconv.Itoa(s.cmd.Process.Pid), "--", "sleep", strconv.Itoa(profileSeconds))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("perf: %w: %.200s", err, out)
	}
	return nil
}

func fetchProfile(ctx context.Context, addr, path string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, profileSeconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		f.Close()
		return fmt.Errorf("profile: %w", err)
	}
	return f.Close()
}
