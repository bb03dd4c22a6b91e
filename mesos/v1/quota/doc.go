// Package quotav1 is the generated vocabulary of quota.
package quotav1
