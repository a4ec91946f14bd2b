package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/events"
)

// Prepare sets up Gin's routing as the routes of this package need it: user
// ids in paths may hold encoded slashes, no path is redirected, and what
// matches nothing is answered with a problem.
func Prepare(engine *gin.Engine) {
	engine.UseRawPath = true
	engine.UnescapePathValues = false // Gin would turn + into a space; see userInPath
	engine.RedirectTrailingSlash = false
	engine.RedirectFixedPath = false
	engine.HandleMethodNotAllowed = true
	engine.ForwardedByClientIP = false // middleware.Proxies knows better
	engine.NoRoute(NotFound)
	engine.NoMethod(MethodNotAllowed)
}

// userInPath is the {userId} of the route. Gin matches the raw path when
// there is one and the decoded path otherwise, so only the former is left to
// be decoded.
func userInPath(c *gin.Context) (string, error) {
	id := c.Param("userId")
	if c.Request.URL.RawPath != "" {
		decoded, err := url.PathUnescape(id)
		if err != nil {
			return "", &events.Error{Code: events.CodeInvalidUserID, Field: "userId"}
		}
		id = decoded
	}
	return id, events.CheckUserID(id)
}

// readBody reads a JSON body of at most limit bytes. The bytes belong to the
// caller.
func readBody(c *gin.Context, limit int) ([]byte, error) {
	r := c.Request
	if err := checkMediaType(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else if body, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1)); len(body) > limit {
		return nil, tooLarge(limit)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &events.Error{Code: codeRequestTimeout}
	default:
		return nil, &events.Error{Code: events.CodeInvalidJSON, Detail: "the body could not be read to its end"}
	}
	return body, nil
}

func tooLarge(limit int) error {
	return &events.Error{Code: codePayloadTooLarge, Detail: "the body may have at most " + strconv.Itoa(limit) + " bytes"}
}

// takeTime lets a handler that has read its body go on for longer than the
// server gives a request: to net/http, a deadline for reading that passes now
// looks like the client's leaving.
func takeTime(c *gin.Context) {
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Time{})
}

func checkMediaType(header http.Header) error {
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return &events.Error{Code: codeUnsupportedMediaType, Detail: "send the body without Content-Encoding"}
	}
	contentType := header.Get("Content-Type")
	if contentType == "application/json" {
		return nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || (media != "application/json" && !strings.HasSuffix(media, "+json")) {
		return &events.Error{Code: codeUnsupportedMediaType}
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return &events.Error{Code: codeUnsupportedMediaType, Detail: "JSON is UTF-8, send no other charset"}
	}
	return nil
}

// header values that many answers share; they are not to be changed.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// answer answers 200 with value as JSON that no cache may keep.
func answer(c *gin.Context, value any) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // the data of workers comes back as they wrote it
	if err := encoder.Encode(value); err != nil {
		fail(c, err)
		return
	}
	answerFresh(c, bytes.TrimSuffix(text.Bytes(), []byte("\n")))
}

// answerFresh answers 200 with JSON that no cache may keep, as caches may keep
// answers to a GET.
func answerFresh(c *gin.Context, text []byte) {
	c.Writer.Header()["Cache-Control"] = noStore
	answerText(c, http.StatusOK, text)
}

// answerText writes JSON that is ready.
func answerText(c *gin.Context, status int, text []byte) {
	c.Writer.Header()["Content-Type"] = jsonType
	write(c, status, text)
}

func write(c *gin.Context, status int, body []byte) {
	c.Status(status)
	_, _ = c.Writer.Write(body) // fails only when the client is gone
}
