package handlers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/gin-gonic/gin"
)

// description is openapi.yaml, closed: an object has no members but those that are described. unevaluatedProperties, a
// keyword that OpenAPI 3.0 does not have, also keeps the validator from falling back to the rules of 3.0.
var description = sync.OnceValues(func() (*openapi3.T, error) {
	document, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		return nil, err
	}
	if err := document.Validate(context.Background()); err != nil {
		return nil, err
	}
	closed := false
	for _, schema := range document.Components.Schemas {
		if len(schema.Value.Properties) > 0 {
			schema.Value.UnevaluatedProperties.Has = &closed
		}
	}
	return document, nil
})

// conforms fails the test for every answer that is not as openapi.yaml describes it, and for every request that is accepted
// as a whole although openapi.yaml forbids it.
func conforms(t testing.TB) gin.HandlerFunc {
	document, err := description()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *gin.Context) {
		var sent bytes.Buffer
		if c.Request.Body != nil {
			body := c.Request.Body
			c.Request.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(body, &sent), body}
		}
		answer := &recordedAnswer{ResponseWriter: c.Writer}
		c.Writer = answer
		c.Next()
		if answer.Status() == statusClientGone {
			return // nothing was answered
		}
		if err := checkExchange(document, c, sent.Bytes(), answer); err != nil {
			why, _, _ := strings.Cut(err.Error(), "\nSchema:")
			t.Errorf("%s %s is not as in openapi.yaml: %s\nthe request: %s\nthe answer: %d %.1000s",
				c.Request.Method, c.Request.URL, why, sent.Bytes(), answer.Status(), answer.body.Bytes())
		}
	}
}

// recordedAnswer keeps a copy of the body that is written.
type recordedAnswer struct {
	gin.ResponseWriter
	body bytes.Buffer
}

// Unwrap lets handlers set the deadlines of the connection.
func (a *recordedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *recordedAnswer) Write(text []byte) (int, error) {
	a.body.Write(text)
	return a.ResponseWriter.Write(text)
}

func (a *recordedAnswer) WriteString(text string) (int, error) {
	a.body.WriteString(text)
	return a.ResponseWriter.WriteString(text)
}

func checkExchange(document *openapi3.T, c *gin.Context, sent []byte, answer *recordedAnswer) error {
	ctx := context.Background()
	path := strings.ReplaceAll(c.FullPath(), ":userId", "{userId}")
	route := &routers.Route{Spec: document, Path: path, Method: c.Request.Method}
	if route.PathItem = document.Paths.Value(path); route.PathItem != nil {
		route.Operation = route.PathItem.GetOperation(route.Method)
	}
	if route.Operation == nil { // what no operation answers is a problem, too
		route.Operation = &openapi3.Operation{Responses: openapi3.NewResponses(
			openapi3.WithName("default", document.Components.Responses["Problem"].Value))}
	}
	request := c.Request.Clone(ctx)
	request.Body = io.NopCloser(bytes.NewReader(sent))
	if len(sent) > 0 {
		request.Header.Set("Content-Type", "application/json") // whatever +json it was
	}
	params := make(map[string]string)
	for _, param := range c.Params {
		params[param.Key] = param.Value
	}
	in := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true,
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		},
	}
	accepted := route.PathItem != nil && answer.Status() < http.StatusMultipleChoices
	if accepted && !bytes.Contains(answer.body.Bytes(), []byte(`{"error":`)) {
		if err := openapi3filter.ValidateRequest(ctx, in); err != nil {
			return err
		}
	}
	return openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: answer.Status(), Header: answer.Header(), Options: in.Options,
		Body: io.NopCloser(bytes.NewReader(answer.body.Bytes())),
	})
}

// reports counts the errors of a test that must fail.
type reports struct {
	testing.TB
	texts []string
}

func (r *reports) Errorf(format string, args ...any) {
	r.texts = append(r.texts, fmt.Sprintf(format, args...))
}

func TestOddExchangesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		call   call
		status int
		media  string
		answer string
		says   string // "" when it is as described
	}{
		"as described":                  {event(plain), 202, "application/json", `{"id":"1-0","status":"sent","sockets":1}`, ""},
		"a refusal as described":        {event("7"), 400, "application/problem+json", `{"type":"/a","title":"t","status":400,"detail":"d","code":"c"}`, ""},
		"a member too many":             {event(plain), 202, "application/json", `{"id":"1-0","status":"sent","sockets":1,"extra":1}`, "extra"},
		"a member too many, in an item": {batch("{" + plain + "}"), 200, "application/json", `{"results":[{"id":"1-0","status":"sent","sockets":1,"extra":1}]}`, "results"},
		"a member missing":              {event(plain), 202, "application/json", `{"id":"1-0","status":"sent"}`, "sockets"},
		"another word":                  {event(plain), 202, "application/json", `{"id":"1-0","status":"gone","sockets":1}`, "status"},
		"another type":                  {get("/v1/users/a/jobs"), 200, "application/json", `{"jobs":null}`, "jobs"},
		"another media type":            {event(plain), 202, "text/plain", `{"id":"1-0","status":"sent","sockets":1}`, "Content-Type"},
		"no JSON":                       {event(plain), 202, "application/json", `{`, "body"},
		"a refusal that is no problem":  {event("7"), 400, "application/json", `{}`, "Content-Type"},
		"another status":                {get("/livez"), 204, "application/json", ``, "status"},
		"a request that is forbidden":   {event(plain + `,"kind":"done"`), 202, "application/json", `{"id":"1-0","status":"sent","sockets":1}`, "kind"},
		"a path that is not described":  {get("/brew"), 200, "application/json", `{}`, "Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			found := &reports{TB: t}
			engine := gin.New()
			engine.Use(conforms(found))
			reply := func(c *gin.Context) {
				_, _ = io.ReadAll(c.Request.Body)
				c.Data(tc.status, tc.media, []byte(tc.answer))
			}
			for _, path := range []string{"/v1/events", "/v1/events/batch", "/v1/users/:userId/jobs", "/livez", "/brew"} {
				engine.Any(path, reply)
			}
			tc.call.to(engine)
			switch got := strings.Join(found.texts, "\n"); {
			case tc.says == "" && got != "":
				t.Error(got)
			case !strings.Contains(got, tc.says):
				t.Errorf("found %q, want %q", got, tc.says)
			}
		})
	}
}
