module github.com/hotmerge/hotmerge/plugins/samples/ticker

go 1.19

require github.com/hotmerge/hotmerge/plugins/go v0.1.0

replace github.com/hotmerge/hotmerge/plugins/go => ../../go
