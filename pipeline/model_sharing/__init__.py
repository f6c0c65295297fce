"""Sharing of trained models: a folder with weights, a card and a program that runs elsewhere; and the way back in."""
