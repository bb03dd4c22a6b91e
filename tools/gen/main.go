// Command gen turns the .proto files of a folder into Go, without protoc: it
// compiles them itself and hands them to protoc-gen-go, at the version that
// this module pins.
//
//	go run ./gen -proto ../mesos/proto -module github.com/mesopool/mesopool -out ..
//
// It writes below -out what protoc would write there and removes nothing.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	root := flag.String("proto", "", "folder that imports are relative to; every .proto file below it is compiled")
	module := flag.String("module", "", "Go module path, cut from the front of each go_package")
	out := flag.String("out", ".", "the module's folder")
	flag.Parse()
	if err := run(context.Background(), *root, *module, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, module, out string) error {
	names, err := protoFiles(root)
	if err != nil {
		return err
	}
	req, err := request(ctx, root, module, names)
	if err != nil {
		return err
	}
	res, err := generate(ctx, req)
	if err != nil {
		return err
	}
	return write(out, res)
}

// protoFiles lists the .proto files below root, slash-separated and relative to it.
func protoFiles(root string) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".proto") {
			names = append(names, path)
		}
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no .proto files below %q", root)
	}
	return names, err
}

// request compiles the files into what a protoc plugin reads. Imports come
// before the files that need them, as plugins expect.
func request(ctx context.Context, root, module string, names []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return nil, err
	}
	c := collector{seen: map[string]bool{}}
	for _, f := range files {
		c.add(f)
	}
	return &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String("module=" + module),
		ProtoFile:      c.files,
	}, nil
}

type collector struct {
	seen  map[string]bool
	files []*descriptorpb.FileDescriptorProto
}

func (c *collector) add(f protoreflect.FileDescriptor) {
	if c.seen[f.Path()] {
		return
	}
	c.seen[f.Path()] = true
	for i := range f.Imports().Len() {
		c.add(f.Imports().Get(i).FileDescriptor)
	}
	c.files = append(c.files, protoutil.ProtoFromFileDescriptor(f))
}

// generate runs protoc-gen-go.
func generate(ctx context.Context, req *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "protoc-gen-go")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("protoc-gen-go: %w", err)
	}
	res := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(answer, res); err != nil {
		return nil, fmt.Errorf("answer of protoc-gen-go: %w", err)
	}
	if res.Error != nil {
		return nil, errors.New(res.GetError())
	}
	return res, nil
}

func write(out string, res *pluginpb.CodeGeneratorResponse) error {
	for _, f := range res.GetFile() {
		path := filepath.Join(out, filepath.FromSlash(f.GetName()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
