// Package task is the vocabulary that every role shares: which task (Key),
// what it should be (Spec), whose it is (Owner) and how it fares (State,
// Status).
//
// It knows nothing of Mesos messages, Docker or HTTP. The enumerations carry
// Mesos' numbers and names, because those are the field's standard terms;
// turning them into wire messages is the business of mesos/convert.
package task
