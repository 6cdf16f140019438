module github.com/hotmerge/hotmerge/plugins/go

go 1.19
