"""What keeps a personality in service: gate, registry, retraining, schedule, chat, export."""
