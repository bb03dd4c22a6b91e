// Package recordio frames the records of Mesos' streaming HTTP APIs: the
// length in decimal, a newline, the bytes, and then the next record.
//
//	for r := recordio.NewReader(resp.Body, 0); ; {
//		record, err := r.Next()
//		…
//	}
//
// It knows nothing of what a record holds, nor of HTTP.
package recordio
