// A handler: counts views, and keeps each visitor's last page.
package main

import "{{name}}/shardmill"

func init() { shardmill.Handle(onClick) }

func onClick(record shardmill.Record, host shardmill.Host) error {
	var click struct{ Page string }
	if err := record.JSON(&click); err != nil {
		return err
	}
	if err := host.CounterAdd("views", 1); err != nil {
		return err
	}
	return host.StateSet("last_page", []byte(click.Page))
}

func main() {}
