import { useState, type FormEvent } from 'react';
import { Logo } from './logo';
import { signIn, useEnded, type Ended } from './session';

const REASONS: Record<Ended, string | null> = {
  never: null,
  expired: 'Your token has expired. Sign in with a new one: the view stays as it was.',
  refused: 'The service refused this token.',
  left: 'You have signed out. The token is gone from this tab.',
};

export function SignIn() {
  const [token, setToken] = useState('');
  const [fault, setFault] = useState<string | null>(null);
  const reason = REASONS[useEnded()];
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setFault(token.trim() ? signIn(token) : 'Paste a token first.');
  };
  return (
    <main className="sign-in">
      <form className="panel" onSubmit={submit} noValidate>
        <Logo />
        <h1>LLM usage</h1>
        <p>Who used which model, how many tokens, and what it cost.</p>
        {reason && !fault && (
          <p className="note" role="status">
            {reason}
          </p>
        )}
        <label htmlFor="token">Access token</label>
        <input
          id="token"
          type="password"
          autoComplete="off"
          spellCheck={false}
          placeholder="eyJ…"
          value={token}
          aria-invalid={fault !== null}
          aria-describedby="token-hint"
          onChange={(event) => setToken(event.target.value)}
        />
        {fault && (
          <p className="fault" role="alert">
            {fault}
          </p>
        )}
        <button type="submit" className="primary">
          Sign in
        </button>
        <p id="token-hint" className="hint">
          The token stays in this tab: it is gone when the tab closes, and is sent to nobody but this service.
        </p>
      </form>
    </main>
  );
}
