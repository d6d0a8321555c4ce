package node

import (
	"context"
	"os"
	"sync"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
)

// Settings answers what concerns the configuration of a node.
type Settings struct{ n *Node }

// liveConfig is a configuration in force: what a node was started with, and the hot keys that were taken over since.
type liveConfig struct {
	config.Config
	taken map[string]bool // keys that were changed since the start
}

// ConfigKeys describes the keys of a configuration.
func ConfigKeys(c *config.Config, origin func(key string) string) []api.ConfigKey {
	out := []api.ConfigKey{}
	for _, k := range config.Keys() {
		out = append(out, api.ConfigKey{Key: k.Name, Value: config.Plain(k.Text(c)), Default: config.Plain(k.Default), Origin: origin(k.Name), Hot: k.Hot, Variable: k.Variable(), About: k.Doc})
	}
	return out
}

// ConfigShow answers Cartage.ConfigShow.
func (s Settings) ConfigShow(context.Context) ([]api.ConfigKey, error) {
	now := s.n.live.Load()
	return ConfigKeys(&now.Config, func(key string) string {
		if now.taken[key] {
			return "live"
		}
		return s.n.parts.origin(key)
	}), nil
}

// ConfigReload answers Cartage.ConfigReload: it reads the configuration again. If it holds, all hot keys are in force in one step; if not, none.
func (s Settings) ConfigReload(context.Context) (*api.ConfigChange, error) {
	read, err := ReadConfig(s.n.parts.Home)
	if err != nil {
		return nil, err
	}
	for {
		old := s.n.live.Load()
		next, change := old.with(&read.Config, s.n.parts.fixed)
		if s.n.live.CompareAndSwap(old, next) {
			s.n.parts.setLogLevel(&next.Config)
			return change, nil
		}
	}
}

// SettingsOf is the configuration of a node.
func SettingsOf(n *Node) Settings { return Settings{n} }

// Config is the configuration that the node was started with.
func (s Settings) Config() config.Config { return s.n.parts.Config }

// ReloadOn reads the configuration again at each signal; the function that it returns ends that.
func (s Settings) ReloadOn(signals <-chan os.Signal, end func()) func() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for range signals {
			change, err := s.ConfigReload(s.n.ctx)
			if err != nil {
				s.n.log.Error("the configuration is as it was", "error", err)
				continue
			}
			s.n.log.Info("configuration read again", "applied", change.Applied, "restart", change.Restart)
		}
	})
	return func() {
		end()
		wg.Wait()
	}
}

// fixed reports whether a key was set for this run, by a flag or by who embeds the node: the file does not change it.
func (p *Parts) fixed(key string) bool { return p.Fixed != nil && p.Fixed(key) }

// setLogLevel lets the log follow a configuration.
func (p *Parts) setLogLevel(c *config.Config) {
	if p.LogLevel != nil {
		_ = p.LogLevel.UnmarshalText([]byte(c.Log.Level)) // one of four
	}
}

// with takes the hot keys of another configuration over.
func (l *liveConfig) with(c *config.Config, fixed func(key string) bool) (*liveConfig, *api.ConfigChange) {
	next := &liveConfig{Config: l.Config, taken: map[string]bool{}}
	for key := range l.taken {
		next.taken[key] = true
	}
	change := &api.ConfigChange{Applied: []string{}, Restart: []string{}}
	for _, k := range config.Keys() {
		switch {
		case k.Text(c) == k.Text(&l.Config), fixed(k.Name):
		case k.Hot:
			k.Copy(&next.Config, c)
			next.taken[k.Name] = true
			change.Applied = append(change.Applied, k.Name)
		default:
			change.Restart = append(change.Restart, k.Name)
		}
	}
	return next, change
}
