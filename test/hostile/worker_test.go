//go:build linux

package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// call makes one request with the worker's key; headers are "Name: value".
func (n *node) call(method, path, body string, headers ...string) (status int, answer string, err error) {
	request, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := n.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// published is the answer to an event.
type published struct {
	ID, Status string
	Sockets    int
	Error      *struct{ Code string }
}

// post publishes one event.
func (n *node) post(user, event, data string) (published, error) {
	var answer published
	status, text, err := n.call(http.MethodPost, "/v1/events", envelope(user, event, data))
	if err != nil {
		return answer, err
	}
	if status != http.StatusAccepted {
		return answer, &refusedError{status, text}
	}
	return answer, json.Unmarshal([]byte(text), &answer)
}

// batch publishes many.
func (n *node) batch(envelopes []string) ([]published, error) {
	status, text, err := n.call(http.MethodPost, "/v1/events/batch", `{"events":[`+strings.Join(envelopes, ",")+`]}`)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &refusedError{status, text}
	}
	var answer struct{ Results []published }
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	for i, result := range answer.Results {
		if result.Error != nil {
			return nil, fmt.Errorf("item %d: %s", i, result.Error.Code)
		}
	}
	return answer.Results, nil
}

func envelope(user, event, data string) string {
	return fmt.Sprintf(`{"userId":%q,"event":%q,"data":%s}`, user, event, data)
}

// online is what /v1/presence/count says.
func (n *node) online() (int, error) {
	_, text, err := n.call(http.MethodGet, "/v1/presence/count", "")
	if err != nil {
		return 0, err
	}
	var answer struct{ Count int }
	return answer.Count, json.Unmarshal([]byte(text), &answer)
}
