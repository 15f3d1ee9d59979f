package ratelimit

import (
	"math"
	"strconv"
	"time"
)

// AppendPolicy appends the value of the RateLimit-Policy response field for v, such as `"api";q=5000;w=60`: the level,
// the calls a window, and the window in seconds (draft-ietf-httpapi-ratelimit-headers-10). It appends nothing if v
// reports no limit.
func AppendPolicy(dst []byte, v Verdict) []byte {
	if v.Window <= 0 {
		return dst
	}
	dst = appendName(dst, v.Level)
	dst = append(dst, ";q="...)
	dst = strconv.AppendInt(dst, int64(v.Limit), 10)
	dst = append(dst, ";w="...)
	return strconv.AppendInt(dst, wholeSeconds(v.Window), 10)
}

// AppendLimit appends the value of the RateLimit response field for v, such as `"api";r=4999;t=12`: the level, the
// calls that remain, and the seconds until the allowance is whole again (draft-ietf-httpapi-ratelimit-headers-10). In a
// refusal those are the seconds of Retry-After, which the draft wants to be the same moment. It appends nothing if v
// reports no limit.
func AppendLimit(dst []byte, v Verdict) []byte {
	if v.Window <= 0 {
		return dst
	}
	seconds := wholeSeconds(v.Reset)
	if !v.Allowed {
		seconds = int64(RetryAfterSeconds(v.RetryAfter))
	}
	dst = appendName(dst, v.Level)
	dst = append(dst, ";r="...)
	dst = strconv.AppendInt(dst, int64(v.Remaining), 10)
	dst = append(dst, ";t="...)
	return strconv.AppendInt(dst, seconds, 10)
}

// appendName appends the level's name as a String of RFC 9651. The names need no escapes, and no other text comes in
// here.
func appendName(dst []byte, l Level) []byte {
	dst = append(dst, '"')
	dst = append(dst, l.String()...)
	return append(dst, '"')
}

// RetryAfterSeconds is d as the Retry-After field writes it (RFC 9110, section 10.2.3): whole seconds, rounded up so
// that no client retries too early, and at least 1.
func RetryAfterSeconds(d time.Duration) int {
	return int(min(max(1, wholeSeconds(d)), math.MaxInt32))
}

// wholeSeconds is d in seconds, rounded up; 0 if it is not positive.
func wholeSeconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Second) + 1
}
