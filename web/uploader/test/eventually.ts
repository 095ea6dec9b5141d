import { vi } from "vitest";

/** Waits until this does not throw any more, however slow the machine is. */
export const eventually = <T>(look: () => T | Promise<T>): Promise<T> => vi.waitFor(look, { timeout: 60_000, interval: 20 });
