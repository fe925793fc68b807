/**
 * How long to wait before the next attempt to connect.
 *
 * Exponential backoff with full jitter, as in Marc Brooker, "Exponential Backoff And Jitter", AWS
 * Architecture Blog, 2015: any moment up to the ceiling is equally likely, so that the clients of a
 * restarted server do not come back all at once.
 */

const FIRST_CEILING_MS = 250;
const LAST_CEILING_MS = 10_000;

/**
 * The delay in milliseconds before an attempt.
 *
 * @param failures - Attempts that have failed in a row; 0 means try at once.
 * @param random - A number from 0 up to 1.
 */
export function backoffMs(failures: number, random: number): number {
  if (failures === 0) return 0;
  return random * Math.min(LAST_CEILING_MS, FIRST_CEILING_MS * 2 ** (failures - 1));
}
