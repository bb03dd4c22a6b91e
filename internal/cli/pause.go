package cli

import "github.com/spf13/cobra"

// newPause is the program of the containers that hold the network of a task
// group.
func newPause() *cobra.Command {
	return &cobra.Command{
		Use: "pause", Short: "Wait until told to end", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}
