package endpoint

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// Error is a refusal as sdc-docker words it: "(Code) Message (request-id)" as
// plain text, without the first part where Code is empty (lib/errors.js).
type Error struct {
	Status  int
	Code    string
	Message string
}

// Error gives the text without a request's ID.
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return "(" + e.Code + ") " + e.Message
}

// plain is a refusal without a code.
func plain(status int, format string, args ...any) *Error {
	return &Error{status, "", fmt.Sprintf(format, args...)}
}

func validation(format string, args ...any) *Error {
	return &Error{http.StatusUnprocessableEntity, "Validation", fmt.Sprintf(format, args...)}
}

func internal(format string, args ...any) *Error {
	return plain(http.StatusInternalServerError, format, args...)
}

func notFound(format string, args ...any) *Error {
	return &Error{http.StatusNotFound, "ResourceNotFound", fmt.Sprintf(format, args...)}
}

func notImplemented(what string) *Error {
	return &Error{http.StatusBadRequest, "NotImplemented", what + " is not implemented"}
}

func noContainer(name string) *Error { return notFound("No such container: %s", name) }

func conflict(code, format string, args ...any) *Error {
	return &Error{http.StatusConflict, code, fmt.Sprintf(format, args...)}
}

func invalidAlias(why string) *Error {
	return conflict("ValidationFailed", `problem creating container: Invalid VM parameters: "alias" %s`, why)
}

var errDuplicateAlias = invalidAlias("(Duplicate) Already exists for this owner_uuid")

// failure gives a backend's error the form of an answer. what is the operation,
// such as "starting".
func failure(what string, err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, backend.ErrCapacity):
		return conflict("NoAllocatableServersError", "problem %s container: No compute resources available: %v", what, err)
	case errors.Is(err, backend.ErrNameTaken):
		return errDuplicateAlias
	}
	return internal("problem %s container: %v", what, err)
}
