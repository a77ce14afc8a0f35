"""Draws `docs/assets/dashboard.png`: our dashboard over a real Prometheus that watches real servers, by Grafana's own components.

    make dashboard

`scene` makes something to see, `prometheus` keeps it, `panels` asks what Grafana would ask, `picture` draws the answers.
"""
