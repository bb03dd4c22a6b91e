// Package allocatorv1 is the generated vocabulary of answers to inverse offers.
package allocatorv1
