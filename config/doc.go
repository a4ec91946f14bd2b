// Package config turns arguments, environment and an optional YAML file into
// one typed, validated value: [Load] returns the [Command] to run with its
// [Settings].
//
// The struct fields of Settings are the only list of settings there is: their
// tags give each setting its key, help, default and bounds, and from the key
// follow the flag (--key), the environment variable (JOBWIRE_KEY) and the
// member of the file (key). Flags win over environment, environment over
// file, file over defaults.
//
// Load is pure: it reads no environment, opens no file and exits nothing by
// itself. It names everything that is wrong at once, and never shows the
// value of a secret. The loader is our own because the common ones stop at
// the first error, read the process's environment behind the caller's back,
// and quote values in their errors.
package config
